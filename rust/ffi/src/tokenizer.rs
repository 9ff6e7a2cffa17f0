//! Text to ids: special tokens first, then the vocabulary's own algorithm on what lies between.

use crate::bpe::BpeEncoder;
use crate::special::{Piece, SpecialTokens, Trust};
use crate::spm::SpmEncoder;
use crate::vocab::{Model, Vocab};
use crate::Result;

pub struct Tokenizer {
    pub special: SpecialTokens,
    encoder: Encoder,
}

enum Encoder {
    Bpe(Box<BpeEncoder>),
    Spm(Box<SpmEncoder>),
}

impl Tokenizer {
    pub fn new(vocab: &Vocab) -> Result<Tokenizer> {
        let encoder = match vocab.model {
            Model::Bpe => Encoder::Bpe(Box::new(BpeEncoder::new(vocab)?)),
            Model::Spm => Encoder::Spm(Box::new(SpmEncoder::new(vocab)?)),
        };
        Ok(Tokenizer { special: SpecialTokens::new(vocab)?, encoder })
    }

    pub fn encode(&self, text: &str, trust: Trust) -> Result<Vec<i32>> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut after_special = true;
        for piece in self.special.cut(text, trust) {
            match piece {
                Piece::Token(id) => {
                    ids.push(id);
                    after_special = true;
                }
                Piece::Text(fragment) => {
                    match &self.encoder {
                        Encoder::Bpe(bpe) => bpe.encode(fragment, &mut ids)?,
                        Encoder::Spm(spm) => spm.encode(fragment, after_special, &mut ids),
                    }
                    after_special = false;
                }
            }
        }
        Ok(ids)
    }
}
