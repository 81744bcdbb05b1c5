# Sourced: build the sdist of the sources in $root, and the wheel from it, into $folder.
python -m build --outdir "$folder" "$root" >"$folder/build.log" 2>&1 || {
    cat "$folder/build.log"
    exit 1
}
