//! Kvasir's tokenizer and chat templates. `abi` is the only module that C++ sees.

mod abi;
mod bpe;
mod chat;
mod jinja;
mod panics;
mod pre_tokenizer;
mod provenance;
mod special;
mod spm;
mod tokenizer;
mod vocab;

/// One line for the user: what is wrong, where, and what to do.
type Result<T> = std::result::Result<T, String>;
