"""What S3 is compared by: servers, clients, and a table that goes to a store."""
