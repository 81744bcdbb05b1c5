"""What a registry needs, who needs it, and until when; what git has of it besides."""
