"""View objects to text: pure functions, one printer for each format."""
