"""Chapter 7 (`notebooks/07_context_length.md`): its tables, figures, and the facts of its prose."""
