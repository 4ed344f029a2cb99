"""API objects, the converter between them and JSON, and the registry of kinds."""
