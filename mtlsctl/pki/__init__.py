"""Keys and certificates. The only floor that makes or reads X.509; nothing in it touches a file, a host or a clock."""
