"""The command line. A command's module is imported when the command runs; the hot ones import nothing heavy."""
