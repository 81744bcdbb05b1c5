"""The store: immutable objects and manifests, each named by the SHA-256 of its bytes."""
