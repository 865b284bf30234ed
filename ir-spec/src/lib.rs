//! The language of Kiln: what a program is and what it means.
