"""The HTTPS API: routing, negotiation, watch, tables, discovery, OpenAPI, authentication and pod subresources."""
