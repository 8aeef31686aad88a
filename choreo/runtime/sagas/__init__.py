"""What compensations, joins and deadlines remember of a saga, and what they do with the next event."""
