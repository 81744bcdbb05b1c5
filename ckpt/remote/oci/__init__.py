"""One version as an artifact of an OCI registry, laid out as ModelPack says."""
