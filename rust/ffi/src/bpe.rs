//! Byte-level BPE ("gpt2" vocabularies) on the BPE model of the `tokenizers` crate.

use std::collections::HashSet;

use tokenizers::models::bpe::{Merges, Vocab as BpeVocab, BPE};
use tokenizers::Model;

use crate::pre_tokenizer::PreTokenizer;
use crate::vocab::Vocab;
use crate::Result;

/// Words are cached per thread by the crate; this bounds the cache.
const CACHED_WORDS: usize = 10_000;

pub struct BpeEncoder {
    pre_tokenizer: PreTokenizer,
    model: BPE,
    alphabet: [char; 256],
    token_count: u32, // ids from here on are bytes without a token
}

impl BpeEncoder {
    pub fn new(vocab: &Vocab) -> Result<BpeEncoder> {
        let pre_tokenizer = PreTokenizer::new(vocab.pre_tokenizer)?;
        let alphabet = byte_alphabet();
        let mut ids = BpeVocab::with_capacity(vocab.tokens.len() + 256);
        for (id, text, kind) in vocab.entries() {
            // Of tokens with the same text the first one counts.
            if kind.is_text() && !ids.contains_key(text) {
                ids.insert(text.to_owned(), id as u32);
            }
        }
        let merges = usable_merges(vocab, &ids)?;

        // A byte that has no token must still stand between its neighbours, so that they do not
        // merge across it: it gets an id past the vocabulary, and encode() leaves it out.
        let token_count = vocab.tokens.len() as u32;
        let mut next_id = token_count;
        for letter in alphabet {
            let text = letter.to_string();
            if !ids.contains_key(&text) {
                ids.insert(text, next_id);
                next_id += 1;
            }
        }
        let model = BPE::builder()
            .vocab_and_merges(ids, merges)
            .ignore_merges(pre_tokenizer.ignore_merges)
            .cache_capacity(CACHED_WORDS)
            .build()
            .map_err(|error| format!("the vocabulary can not be used: {error}"))?;
        Ok(BpeEncoder { pre_tokenizer, model, alphabet, token_count })
    }

    pub fn encode(&self, text: &str, ids: &mut Vec<i32>) -> Result<()> {
        let mut word = String::new();
        self.pre_tokenizer.split(text, &mut |piece| {
            word.clear();
            word.extend(piece.bytes().map(|byte| self.alphabet[byte as usize]));
            let tokens = self.model.tokenize(&word).map_err(|error| error.to_string())?;
            let known = tokens.iter().map(|token| token.id).filter(|&id| id < self.token_count);
            ids.extend(known.map(|id| id as i32));
            Ok(())
        })
    }
}

/// The printable character that stands for each byte in GPT-2 vocabularies.
fn byte_alphabet() -> [char; 256] {
    let mut alphabet = ['\0'; 256];
    let mut next = 0x100;
    for byte in 0..=255_u8 {
        let is_printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        alphabet[byte as usize] = if is_printable {
            char::from(byte)
        } else {
            next += 1;
            char::from_u32(next - 1).expect("U+0100 to U+0143 are characters")
        };
    }
    alphabet
}

/// The merges whose parts and result are tokens, by rank. Files trimmed of tokens keep the merges
/// of those tokens: they can not produce anything and are passed over, and so are repetitions.
fn usable_merges(vocab: &Vocab, ids: &BpeVocab) -> Result<Merges> {
    let mut merges = Merges::with_capacity(vocab.merges.len());
    let mut seen = HashSet::with_capacity(vocab.merges.len());
    let mut result = String::new();
    for (rank, line) in vocab.merges.iter().enumerate() {
        let Some((left, right)) = split_merge(line) else {
            return Err(format!(
                "merge {rank} of the vocabulary is {line:?}, not two tokens with a space between; \
                 convert the model again"
            ));
        };
        result.clear();
        result.push_str(left);
        result.push_str(right);
        let (Some(left_id), Some(right_id)) = (ids.get(left), ids.get(right)) else { continue };
        if ids.contains_key(&result) && seen.insert((left_id, right_id)) {
            merges.push((left.to_owned(), right.to_owned()));
        }
    }
    Ok(merges)
}

/// Splits at the first space that leaves something on its left.
fn split_merge(line: &str) -> Option<(&str, &str)> {
    let first = line.chars().next()?.len_utf8();
    let space = first + line[first..].find(' ')?;
    Some((&line[..space], &line[space + 1..]))
}
