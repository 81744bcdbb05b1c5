"""Give the objects of a registry to Git LFS, so that a clone fetches only those it needs."""

from ckpt.errors import UsageError
from ckpt.io.git import git
from ckpt.registry.registry import Registry

LFS_ATTRIBUTES = {".ckpt/objects/**": ("filter=lfs", "diff=lfs", "merge=lfs", "-text")}
MIGRATE = "git lfs migrate import --everything --include='.ckpt/objects/**'"


def set_up_lfs(registry: Registry) -> int:
    """Set up Git LFS in this clone; returns how many objects git has committed without it.

    Raises:
        UsageError: Git LFS is not installed, or the folder is not in a git repository.
    """
    folder = registry.folder
    git(folder, "rev-parse", "--show-prefix")
    try:
        git(folder, "lfs", "version")
    except UsageError as error:
        raise UsageError(
            "git-lfs is not installed, or not on the PATH",
            hint="https://git-lfs.com has it;  apt-get install git-lfs  or  brew install git-lfs",
        ) from error
    git(folder, "lfs", "install", "--local")
    committed = git(folder, "ls-files", "--", ".ckpt/objects").splitlines()
    pointers = git(folder, "lfs", "ls-files", "--name-only", "--include", "*.ckpt/objects/*")
    return max(0, len(committed) - len(pointers.splitlines()))
