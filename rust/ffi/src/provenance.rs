//! Tells the characters of a rendered chat that the template wrote from those that users wrote.
//!
//! A template may trim, split, compare and join what users wrote, so positions can not be followed
//! through it. Instead some characters of the users' texts are put in disguise: each is replaced
//! by a private-use character that occurs nowhere else. The template handles it like any other
//! character, and wherever it turns up in the result, a user wrote it. Taking the disguise off
//! gives the text; a control token counts only where no disguised character lies inside it.

use std::collections::{HashMap, HashSet};

use crate::special::SpecialTokens;
use crate::Result;

/// How much of the users' texts is put in disguise.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Disguise {
    /// Every character that could begin or end a control token, and the first one of a content,
    /// so that no control token can begin, end or reach into what a user wrote, even if the
    /// template removes or joins parts of it. Left alone are the template's own string literals
    /// ("</think>"), for which it may search.
    Full,
    /// The first character of complete control tokens only: for templates that render
    /// differently when more is disguised.
    Minimal,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Role,
    Content,
}

/// A rendered text without disguise, and the ascending byte offsets of users' characters in it.
pub struct Unmasked {
    pub text: String,
    pub foreign: Vec<usize>,
}

pub struct Masker<'a> {
    special: &'a SpecialTokens,
    literals: &'a [String],
    ends: HashSet<char>, // first and last characters of control tokens
    stand_ins: Box<dyn Iterator<Item = char> + 'a>,
    masks: HashMap<char, char>,
    originals: HashMap<char, char>,
}

impl<'a> Masker<'a> {
    /// `texts`: everything that goes into the rendering; stand-ins do not occur in them.
    pub fn new(special: &'a SpecialTokens, literals: &'a [String], texts: &[&str]) -> Masker<'a> {
        let private_use = '\u{100000}'..='\u{10FFFD}';
        let used: HashSet<char> = texts
            .iter()
            .flat_map(|text| text.chars())
            .filter(|letter| private_use.contains(letter))
            .collect();
        let ends = special
            .trusted_texts()
            .flat_map(|text| text.chars().next().into_iter().chain(text.chars().next_back()))
            .collect();
        Masker {
            special,
            literals,
            ends,
            stand_ins: Box::new(private_use.filter(move |letter| !used.contains(letter))),
            masks: HashMap::new(),
            originals: HashMap::new(),
        }
    }

    pub fn mask(&mut self, text: &str, field: Field, disguise: Disguise) -> Result<String> {
        let hidden = self.hidden_offsets(text, field, disguise);
        let letters = text.char_indices();
        letters
            .map(|(at, letter)| if hidden[at] { self.stand_in(letter) } else { Ok(letter) })
            .collect()
    }

    pub fn unmask(&self, rendered: &str) -> Unmasked {
        let mut text = String::with_capacity(rendered.len());
        let mut foreign = Vec::new();
        for letter in rendered.chars() {
            match self.originals.get(&letter) {
                Some(&original) => {
                    foreign.push(text.len());
                    text.push(original);
                }
                None => text.push(letter),
            }
        }
        Unmasked { text, foreign }
    }

    /// For each byte of `text`, whether the character that begins there is to be disguised.
    fn hidden_offsets(&self, text: &str, field: Field, disguise: Disguise) -> Vec<bool> {
        let mut hidden = vec![false; text.len()];
        if disguise == Disguise::Full {
            for (at, letter) in text.char_indices() {
                hidden[at] = self.ends.contains(&letter);
            }
            let first = text.find(|letter: char| !letter.is_whitespace());
            if let (Field::Content, Some(at)) = (field, first) {
                hidden[at] = true;
            }
            for literal in self.literals {
                for (start, found) in text.match_indices(literal.as_str()) {
                    hidden[start..start + found.len()].fill(false);
                }
            }
        }
        for at in self.special.trusted_starts(text) {
            hidden[at] = true;
        }
        hidden
    }

    fn stand_in(&mut self, letter: char) -> Result<char> {
        if let Some(&mask) = self.masks.get(&letter) {
            return Ok(mask);
        }
        let mask = self.stand_ins.next().ok_or(
            "the messages use so many private-use characters (U+100000 and up) that none is left \
             to mark what users wrote",
        )?;
        self.masks.insert(letter, mask);
        self.originals.insert(mask, letter);
        Ok(mask)
    }
}

/// The string literals inside the tags of a Jinja template, without those too short to search for.
pub fn string_literals(source: &str) -> Vec<String> {
    let mut literals = HashSet::new();
    let mut rest = source;
    while let Some(start) = rest.find("{{").into_iter().chain(rest.find("{%")).min() {
        rest = &rest[start + 2..];
        while let Some(at) = rest.find(['\'', '"', '}']) {
            let delimiter = rest[at..].chars().next().unwrap_or('}');
            rest = &rest[at + 1..];
            if delimiter == '}' {
                break;
            }
            let Some(size) = closing_quote(rest, delimiter) else { break };
            literals.insert(rest[..size].replace("\\n", "\n"));
            rest = &rest[size + 1..];
        }
    }
    literals.into_iter().filter(|literal| literal.chars().count() > 1).collect()
}

fn closing_quote(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    for (at, letter) in text.char_indices() {
        if letter == quote && !is_escaped {
            return Some(at);
        }
        is_escaped = letter == '\\' && !is_escaped;
    }
    None
}
