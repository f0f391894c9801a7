"""What the notebook `02_run_table` shows: tables, figures, and the values in its sentences."""
