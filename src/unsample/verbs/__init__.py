"""What a user calls: look up, check, run, return. Re-exported by the package itself."""
