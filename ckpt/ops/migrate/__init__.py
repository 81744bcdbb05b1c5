"""Migrate: make migrations, try them, and rename a checkpoint through them."""

from ckpt.ops.migrate.check import Finding, Listed, check_migrations, list_migrations
from ckpt.ops.migrate.new import Drafted, new_migration
from ckpt.ops.migrate.run import Migrated, migrate

__all__ = [
    "Drafted",
    "Finding",
    "Listed",
    "Migrated",
    "check_migrations",
    "list_migrations",
    "migrate",
    "new_migration",
]
