"""What travels between a store and a bucket: objects, one by one or in packs, and manifests."""
