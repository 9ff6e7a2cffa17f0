//! Cuts special tokens out of a text: longest first, literally, before anything else is done.

use aho_corasick::AhoCorasick;
use memchr::memmem::Finder;

use crate::vocab::{Kind, Vocab};
use crate::Result;

pub enum Piece<'t> {
    Text(&'t str),
    Token(i32),
}

/// Where the text of a control token becomes that token.
#[derive(Clone, Copy)]
pub enum Trust<'a> {
    Everywhere,
    Nowhere,
    /// Except where one of these byte offsets (ascending) lies inside it.
    AllBut(&'a [usize]),
}

impl Trust<'_> {
    fn allows(self, start: usize, end: usize) -> bool {
        match self {
            Trust::Everywhere => true,
            Trust::Nowhere => false,
            Trust::AllBut(offsets) => {
                let next = offsets.partition_point(|&offset| offset < start);
                offsets.get(next).is_none_or(|&offset| offset >= end)
            }
        }
    }
}

struct Special {
    id: i32,
    text: String,
    finder: Finder<'static>,
    needs_trust: bool, // control and unknown tokens; user-defined ones are for everybody
}

pub struct SpecialTokens {
    tokens: Vec<Special>, // longest first, then by id
    all: AhoCorasick,     // pattern i is tokens[i]
    any_open: bool,       // whether there is a token that needs no trust
}

struct Cut {
    start: usize,
    end: usize,
    id: i32,
}

impl SpecialTokens {
    pub fn new(vocab: &Vocab) -> Result<SpecialTokens> {
        let mut tokens: Vec<Special> = vocab
            .entries()
            .filter(|(_, _, kind)| {
                matches!(kind, Kind::Control | Kind::UserDefined | Kind::Unknown)
            })
            .map(|(id, text, kind)| Special {
                id,
                text: text.to_owned(),
                finder: Finder::new(text.as_bytes()).into_owned(),
                needs_trust: kind != Kind::UserDefined,
            })
            .collect();
        tokens.sort_by_key(|token| (std::cmp::Reverse(token.text.len()), token.id));
        let all = AhoCorasick::new(tokens.iter().map(|token| &token.text))
            .map_err(|error| format!("the vocabulary has too many special tokens: {error}"))?;
        let any_open = tokens.iter().any(|token| !token.needs_trust);
        Ok(SpecialTokens { tokens, all, any_open })
    }

    /// The texts that become a token only where they are trusted.
    pub fn trusted_texts(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().filter(|token| token.needs_trust).map(|token| token.text.as_str())
    }

    /// Byte offsets at which such a text begins, overlapping ones included.
    pub fn trusted_starts<'s>(&'s self, text: &'s str) -> impl Iterator<Item = usize> + 's {
        self.all
            .find_overlapping_iter(text)
            .filter(|found| self.tokens[found.pattern().as_usize()].needs_trust)
            .map(|found| found.start())
    }

    pub fn cut<'t>(&self, text: &'t str, trust: Trust) -> Vec<Piece<'t>> {
        let mut cuts = self.find_cuts(text, trust);
        cuts.sort_by_key(|cut| cut.start);
        let mut pieces = Vec::with_capacity(2 * cuts.len() + 1);
        let mut end_last = 0;
        for cut in cuts {
            if cut.start > end_last {
                pieces.push(Piece::Text(&text[end_last..cut.start]));
            }
            pieces.push(Piece::Token(cut.id));
            end_last = cut.end;
        }
        if end_last < text.len() {
            pieces.push(Piece::Text(&text[end_last..]));
        }
        pieces
    }

    fn find_cuts(&self, text: &str, trust: Trust) -> Vec<Cut> {
        let mut cuts = Vec::new();
        let no_trust = matches!(trust, Trust::Nowhere);
        if self.tokens.is_empty() || (no_trust && !self.any_open) {
            return cuts;
        }
        let mut taken = Vec::new();
        for index in self.present(text) {
            let token = &self.tokens[index];
            if token.needs_trust && no_trust {
                continue;
            }
            taken.resize(text.len(), false);
            let mut from = 0;
            while let Some(found) = token.finder.find(&text.as_bytes()[from..]) {
                let (start, end) = (from + found, from + found + token.text.len());
                // What was taken earlier is at least as long, so an overlap shows at an end.
                let is_free = !taken[start] && !taken[end - 1];
                if is_free && (!token.needs_trust || trust.allows(start, end)) {
                    taken[start..end].fill(true);
                    cuts.push(Cut { start, end, id: token.id });
                    from = end;
                } else {
                    from = start + 1;
                }
            }
        }
        cuts
    }

    /// Indices of the tokens that occur at all, ascending, in one pass over the text.
    fn present(&self, text: &str) -> Vec<usize> {
        let mut seen = vec![false; self.tokens.len()];
        for found in self.all.find_overlapping_iter(text) {
            seen[found.pattern().as_usize()] = true;
        }
        (0..seen.len()).filter(|&index| seen[index]).collect()
    }
}
