"""Index recipes, one TOML file each; installed as the package `mmalign.recipes`."""
