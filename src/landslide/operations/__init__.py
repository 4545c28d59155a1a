"""What an operator asks: is the installation healthy, does the disk suffice."""
