"""One file a metric; `manifest.toml` lists the names they are created by."""
