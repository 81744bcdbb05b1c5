"""Folders that `torch.distributed.checkpoint` writes."""

FILE_NAME = ".metadata"
PART_SUFFIX = ".distcp"
