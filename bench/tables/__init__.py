"""Tables: what is made of a file with rows beside engines that read the same file, or a pipe, in a process of their own.

=========== ===================================================================================================
works       the rows: which input, what is asked of Weir and of the others, and how the answers are checked
questions   what is asked, in the SQL that DuckDB, Polars and DataFusion share; Weir's own words for it
references  the engines without a server
answers     what must come out, and whether it did, value by value
first       how much of an upload was sent when the first window of the answer came
targets     what Weir is to reach, and whether it does
=========== ===================================================================================================
"""
