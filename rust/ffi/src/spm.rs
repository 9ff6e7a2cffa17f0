//! SentencePiece-style BPE ("llama" vocabularies): the adjacent pair whose concatenation is the
//! token of highest score merges first, the leftmost one of equals; bytes are the fallback.
//!
//! Written here because rank-ordered merges, as in the `tokenizers` crate, can not express that
//! two splits of one token are equally good.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use tokenizers::models::bpe::Vocab as TokenIds;

use crate::vocab::{Kind, Vocab};
use crate::Result;

const SPACE: &str = "\u{2581}";

pub struct SpmEncoder {
    ids: TokenIds,
    scores: Vec<f32>,
    byte_ids: [Option<i32>; 256],
    unknown: Option<i32>,
    add_space_prefix: bool,
}

/// A run of the text; runs that were merged into their left neighbour have size 0.
struct Symbol {
    start: usize,
    size: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

/// Two neighbouring symbols that may merge; stale once one of them has changed.
struct Candidate {
    score: f32,
    left: usize,
    right: usize,
    size: usize, // of both together, which tells a stale candidate
}

impl SpmEncoder {
    pub fn new(vocab: &Vocab) -> Result<SpmEncoder> {
        let mut ids = TokenIds::with_capacity(vocab.tokens.len());
        let mut byte_ids = [None; 256];
        for (id, text, kind) in vocab.entries() {
            if kind == Kind::Byte {
                byte_ids[parse_byte(id, text)? as usize].get_or_insert(id);
            } else if kind.is_text() && !ids.contains_key(text) {
                ids.insert(text.to_owned(), id as u32); // of equal texts the first one counts
            }
        }
        if vocab.unknown.is_none() && byte_ids.contains(&None) {
            return Err("the vocabulary has neither all 256 byte tokens nor an unknown token, so \
                        that some texts have no encoding; convert the model again"
                .to_owned());
        }
        Ok(SpmEncoder {
            ids,
            scores: vocab.scores.to_vec(),
            byte_ids,
            unknown: vocab.unknown,
            add_space_prefix: vocab.add_space_prefix,
        })
    }

    /// `after_special`: the fragment begins the text or follows a special token.
    pub fn encode(&self, fragment: &str, after_special: bool, ids: &mut Vec<i32>) {
        let prefix = if self.add_space_prefix && after_special { SPACE } else { "" };
        let text = prefix.to_owned() + &fragment.replace(' ', SPACE);
        for symbol in self.merge(&text) {
            if symbol.size > 0 {
                self.emit(&text[symbol.start..symbol.start + symbol.size], ids);
            }
        }
    }

    fn merge(&self, text: &str) -> Vec<Symbol> {
        let mut symbols = characters(text);
        let mut queue: BinaryHeap<Candidate> = (1..symbols.len())
            .filter_map(|right| self.candidate(text, &symbols, right - 1, right))
            .collect();
        while let Some(best) = queue.pop() {
            let (left, right) = (best.left, best.right);
            let is_stale = symbols[left].size == 0
                || symbols[right].size == 0
                || symbols[left].size + symbols[right].size != best.size;
            if is_stale {
                continue;
            }
            symbols[left].size = best.size;
            symbols[right].size = 0;
            symbols[left].next = symbols[right].next;
            if let Some(next) = symbols[left].next {
                symbols[next].previous = Some(left);
                queue.extend(self.candidate(text, &symbols, left, next));
            }
            if let Some(previous) = symbols[left].previous {
                queue.extend(self.candidate(text, &symbols, previous, left));
            }
        }
        symbols
    }

    fn candidate(
        &self,
        text: &str,
        symbols: &[Symbol],
        left: usize,
        right: usize,
    ) -> Option<Candidate> {
        let start = symbols[left].start;
        let size = symbols[left].size + symbols[right].size;
        let id = *self.ids.get(&text[start..start + size])?;
        Some(Candidate { score: self.scores[id as usize], left, right, size })
    }

    fn emit(&self, piece: &str, ids: &mut Vec<i32>) {
        if let Some(&id) = self.ids.get(piece) {
            ids.push(id as i32);
            return;
        }
        // Only single characters get here: whatever merged is a token.
        let bytes: Option<Vec<i32>> =
            piece.bytes().map(|byte| self.byte_ids[byte as usize]).collect();
        match bytes {
            Some(bytes) => ids.extend(bytes),
            None => ids.extend(self.unknown),
        }
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_score = self.score.partial_cmp(&other.score).unwrap_or(Ordering::Equal);
        by_score.then_with(|| other.left.cmp(&self.left))
    }
}
impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Candidate {}

fn characters(text: &str) -> Vec<Symbol> {
    let starts = text.char_indices();
    let mut symbols: Vec<Symbol> = starts
        .enumerate()
        .map(|(index, (start, letter))| Symbol {
            start,
            size: letter.len_utf8(),
            previous: index.checked_sub(1),
            next: Some(index + 1),
        })
        .collect();
    if let Some(last) = symbols.last_mut() {
        last.next = None;
    }
    symbols
}

/// The byte behind "<0xHH>".
fn parse_byte(id: i32, text: &str) -> Result<u8> {
    let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    let is_strict = |digits: &&str| {
        digits.len() == 2 && digits.bytes().all(|d| matches!(d, b'0'..=b'9' | b'A'..=b'F'))
    };
    digits.filter(is_strict).and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or_else(
        || format!("token {id} is of type byte but its text is {text:?}, not of the form <0x0A>"),
    )
}
