"""Several trainers on the same case, side by side: measured in rounds, drawn as tables and charts, never red."""
