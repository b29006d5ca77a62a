//! Delta xDS for the mesh.
