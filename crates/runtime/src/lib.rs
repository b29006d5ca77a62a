//! What every program of the mesh has.
