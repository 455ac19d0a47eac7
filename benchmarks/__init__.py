"""What traitscope costs, beside what it is compared with: scripts that measure on this machine."""
