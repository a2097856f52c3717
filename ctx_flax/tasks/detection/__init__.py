"""Detection and segmentation of objects: what detectors of ctx_flax.models learn, and how they are tested."""
