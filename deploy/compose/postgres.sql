-- The registry keeps its schemas beside the control plane.
CREATE DATABASE registry;
