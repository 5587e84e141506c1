"""The page of a report: one HTML file that holds rows, prompts and figures, and the program that shows them."""
