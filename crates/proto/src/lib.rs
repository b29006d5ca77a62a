//! Generated protocol-buffer and gRPC code; the sources are in `proto/`.
