//! The vocabulary tables as they arrive, borrowed from the caller.

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Model {
    Bpe,
    Spm,
}

/// What a token is for; the values are those of the file format.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl Kind {
    pub fn from_value(value: u8) -> Option<Kind> {
        match value {
            1 => Some(Kind::Normal),
            2 => Some(Kind::Unknown),
            3 => Some(Kind::Control),
            4 => Some(Kind::UserDefined),
            5 => Some(Kind::Unused),
            6 => Some(Kind::Byte),
            _ => None,
        }
    }

    /// Whether ordinary text may turn into such a token. Control and unknown tokens come from
    /// the template only, byte tokens from the byte fallback only.
    pub fn is_text(self) -> bool {
        matches!(self, Kind::Normal | Kind::UserDefined)
    }
}

pub struct Vocab<'a> {
    pub model: Model,
    pub pre_tokenizer: &'a str,
    pub tokens: Vec<&'a str>,
    pub kinds: Vec<Kind>,
    pub scores: &'a [f32],
    pub merges: Vec<&'a str>,
    pub unknown: Option<i32>,
    pub add_space_prefix: bool,
}

impl<'a> Vocab<'a> {
    /// Every token with its id and kind; empty texts (padding of some files) are left out.
    pub fn entries(&self) -> impl Iterator<Item = (i32, &'a str, Kind)> + '_ {
        let texts = self.tokens.iter().zip(&self.kinds).enumerate();
        texts
            .filter(|(_, (text, _))| !text.is_empty())
            .map(|(id, (text, kind))| (id as i32, *text, *kind))
    }
}
