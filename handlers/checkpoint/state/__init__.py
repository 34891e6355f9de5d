"""What of a run is saved, and how it is put back."""
