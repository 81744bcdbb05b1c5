# Sourced: build the wheel of the sources in $root into $folder.
python -m build --wheel --outdir "$folder" "$root" >"$folder/build.log" 2>&1 || {
    cat "$folder/build.log"
    exit 1
}
