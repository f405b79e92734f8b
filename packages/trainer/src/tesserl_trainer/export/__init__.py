"""Export trained policies to files, and exchange runs with the Hugging Face hub."""
