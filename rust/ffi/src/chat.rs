//! Renders conversations through a model's chat template and tokenises the result.

use std::io;

use minijinja::value::Value;
use minijinja::{context, Environment, Error, ErrorKind};

use crate::jinja;
use crate::panics;
use crate::provenance::{string_literals, Disguise, Field, Masker, Unmasked};
use crate::special::Trust;
use crate::tokenizer::Tokenizer;
use crate::Result;

const MAX_SOURCE_BYTES: usize = 128 << 10;
const MAX_STEPS: u64 = 1_000_000;
const MAX_STEPS_PER_MESSAGE: u64 = 1_000; // on top, for long conversations
const MAX_OUTPUT_BYTES: usize = 64 << 20;
/// Parsing and dropping recurse once per level of a template or value. Their sizes are limited,
/// so that this much suffices for the deepest; only touched pages cost memory.
const STACK_BYTES: usize = 512 << 20;

const NAME: &str = "chat";

#[derive(Clone, Copy)]
pub struct Message<'a> {
    pub role: &'a str,
    pub content: &'a str,
}

pub struct Chat<'a> {
    pub messages: Vec<Message<'a>>,
    pub add_generation_prompt: bool,
}

pub struct Rendered {
    pub text: String,
    pub ids: Vec<i32>,
}

pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    literals: Vec<String>,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<ChatTemplate> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(format!(
                "the chat template has {} bytes, more than the {MAX_SOURCE_BYTES} allowed",
                source.len()
            ));
        }
        let environment = on_large_stack(|| {
            let mut environment = jinja::environment().map_err(|error| describe(&error))?;
            let cleaned = jinja::without_generation_tags(source);
            environment.add_template_owned(NAME, cleaned).map_err(|error| describe(&error))?;
            Ok(environment)
        })?;
        Ok(ChatTemplate {
            environment,
            source: source.to_owned(),
            literals: string_literals(source),
            bos: bos.to_owned(),
            eos: eos.to_owned(),
        })
    }

    pub fn render(&self, chat: &Chat, tokenizer: &Tokenizer) -> Result<Rendered> {
        let Unmasked { text, foreign } = on_large_stack(|| self.render_marked(chat, tokenizer))?;
        let ids = tokenizer.encode(&text, Trust::AllBut(&foreign))?;
        Ok(Rendered { text, ids })
    }

    fn render_marked(&self, chat: &Chat, tokenizer: &Tokenizer) -> Result<Unmasked> {
        let plain = self.render_text(chat)?;
        let mut texts = vec![self.source.as_str(), &plain, &self.bos, &self.eos];
        texts.extend(chat.messages.iter().flat_map(|message| [message.role, message.content]));
        let mut masker = Masker::new(&tokenizer.special, &self.literals, &texts);
        let full = self.render_masked(chat, &mut masker, Disguise::Full);
        if let Ok(unmasked) = full {
            if unmasked.text == plain {
                return Ok(unmasked);
            }
        }
        // If even this text differs, the template looked for a control token in what a user
        // wrote. It does not get to see one, whatever it would have done.
        self.render_masked(chat, &mut masker, Disguise::Minimal)
    }

    fn render_masked(
        &self,
        chat: &Chat,
        masker: &mut Masker,
        disguise: Disguise,
    ) -> Result<Unmasked> {
        let mut masked = Vec::with_capacity(chat.messages.len());
        for message in &chat.messages {
            let role = masker.mask(message.role, Field::Role, disguise)?;
            masked.push((role, masker.mask(message.content, Field::Content, disguise)?));
        }
        let messages = masked.iter().map(|(role, content)| Message { role, content }).collect();
        let text = self.render_text(&Chat { messages, ..*chat })?;
        Ok(masker.unmask(&text))
    }

    fn render_text(&self, chat: &Chat) -> Result<String> {
        let messages = chat.messages.iter();
        let messages: Vec<Value> = messages
            .map(|message| context! { role => message.role, content => message.content })
            .collect();
        let variables = context! {
            messages => messages,
            add_generation_prompt => chat.add_generation_prompt,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            tools => (),
            documents => (),
        };
        let mut environment = self.environment.clone();
        let steps = MAX_STEPS + MAX_STEPS_PER_MESSAGE * chat.messages.len() as u64;
        environment.set_fuel(Some(steps));
        let template = environment.get_template(NAME).map_err(|error| describe(&error))?;
        let mut output = LimitedOutput::default();
        let result = template.render_captured_to(variables, &mut output);
        if output.is_over {
            return Err(format!("the chat template wrote more than {MAX_OUTPUT_BYTES} bytes"));
        }
        result.map(drop).map_err(|error| describe(&error))?;
        String::from_utf8(output.bytes)
            .map_err(|_| "the chat template wrote bytes that are not UTF-8".to_owned())
    }
}

#[derive(Default)]
struct LimitedOutput {
    bytes: Vec<u8>,
    is_over: bool,
}

impl io::Write for LimitedOutput {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + data.len() > MAX_OUTPUT_BYTES {
            self.is_over = true;
            return Err(io::Error::other("output limit"));
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Templates come with models and may nest as deeply as their author liked.
fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("chat template".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || panics::catch(work))
            .map_err(|error| format!("can not start a thread for the chat template: {error}"))?;
        match thread.join() {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => std::panic::resume_unwind(Box::new(panic)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn describe(error: &Error) -> String {
    let reason = match error.kind() {
        ErrorKind::OutOfFuel => format!("it ran for more than {MAX_STEPS} steps"),
        kind => error.detail().map_or_else(|| kind.to_string(), str::to_owned),
    };
    match error.line() {
        Some(line) => format!("chat template, line {line}: {reason}"),
        None => format!("chat template: {reason}"),
    }
}
