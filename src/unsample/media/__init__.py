"""Pictures, masks, figures and files: reading and writing them with care. No torch at import."""
