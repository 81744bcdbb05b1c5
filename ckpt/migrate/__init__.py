"""Migrations: what leads the checkpoints of a class's earlier forms to its present one."""
