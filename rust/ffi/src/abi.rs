//! The C interface of include/kvasir_ffi.h. All unsafe code lives here.

use std::ffi::c_char;
use std::slice;

use crate::chat::{Chat, ChatTemplate, Message};
use crate::panics;
use crate::special::Trust;
use crate::tokenizer::Tokenizer;
use crate::vocab::{Kind, Model, Vocab};
use crate::Result;

#[repr(i32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Ok = 0,
    BadInput = 1,
    Internal = 2,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Text {
    data: *const c_char,
    size: usize,
}

#[repr(C)]
pub struct OwnedString {
    data: *mut c_char,
    size: usize,
}

#[repr(C)]
pub struct OwnedIds {
    data: *mut i32,
    size: usize,
}

#[repr(C)]
pub struct VocabTables {
    model: i32,
    pre_tokenizer: Text,
    tokens: *const Text,
    types: *const u8,
    token_count: usize,
    scores: *const f32,
    score_count: usize,
    merges: *const Text,
    merge_count: usize,
    unknown: i32,
    add_space_prefix: bool,
}

#[repr(C)]
pub struct CMessage {
    role: Text,
    content: Text,
}

#[repr(C)]
pub struct CChat {
    messages: *const CMessage,
    message_count: usize,
    add_generation_prompt: bool,
}

#[repr(C)]
pub struct CRendered {
    text: OwnedString,
    ids: OwnedIds,
}

/// # Safety
/// The pointers are valid as the header says; so for every function below.
#[no_mangle]
pub unsafe extern "C" fn kvasir_tokenizer_create(
    vocab: *const VocabTables,
    tokenizer: *mut *mut Tokenizer,
    error: *mut OwnedString,
) -> Code {
    guard(error, || {
        let created = Tokenizer::new(&read_vocab(&*vocab)?)?;
        *tokenizer = Box::into_raw(Box::new(created));
        Ok(())
    })
}

/// # Safety
/// See above; `tokenizer` is not used again.
#[no_mangle]
pub unsafe extern "C" fn kvasir_tokenizer_free(tokenizer: *mut Tokenizer) {
    free(tokenizer);
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn kvasir_tokenizer_encode(
    tokenizer: *const Tokenizer,
    text: Text,
    parse_special: bool,
    ids: *mut OwnedIds,
    error: *mut OwnedString,
) -> Code {
    guard(error, || {
        let text = read_text(text, || "the text".to_owned())?;
        let trust = if parse_special { Trust::Everywhere } else { Trust::Nowhere };
        *ids = own_ids((*tokenizer).encode(text, trust)?);
        Ok(())
    })
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn kvasir_template_create(
    source: Text,
    bos: Text,
    eos: Text,
    chat_template: *mut *mut ChatTemplate,
    error: *mut OwnedString,
) -> Code {
    guard(error, || {
        let source = read_text(source, || "the chat template".to_owned())?;
        let bos = read_text(bos, || "the BOS token".to_owned())?;
        let eos = read_text(eos, || "the EOS token".to_owned())?;
        let created = ChatTemplate::new(source, bos, eos)?;
        *chat_template = Box::into_raw(Box::new(created));
        Ok(())
    })
}

/// # Safety
/// See above; `chat_template` is not used again.
#[no_mangle]
pub unsafe extern "C" fn kvasir_template_free(chat_template: *mut ChatTemplate) {
    free(chat_template);
}

/// # Safety
/// See above.
#[no_mangle]
pub unsafe extern "C" fn kvasir_template_render(
    chat_template: *const ChatTemplate,
    tokenizer: *const Tokenizer,
    chat: *const CChat,
    rendered: *mut CRendered,
    error: *mut OwnedString,
) -> Code {
    guard(error, || {
        let chat = read_chat(&*chat)?;
        let result = (*chat_template).render(&chat, &*tokenizer)?;
        *rendered = CRendered { text: own_string(result.text), ids: own_ids(result.ids) };
        Ok(())
    })
}

/// # Safety
/// `string` comes from this library and is not used again.
#[no_mangle]
pub unsafe extern "C" fn kvasir_string_free(string: OwnedString) {
    if !string.data.is_null() {
        free(std::ptr::slice_from_raw_parts_mut(string.data.cast::<u8>(), string.size));
    }
}

/// # Safety
/// `ids` come from this library and are not used again.
#[no_mangle]
pub unsafe extern "C" fn kvasir_ids_free(ids: OwnedIds) {
    if !ids.data.is_null() {
        free(std::ptr::slice_from_raw_parts_mut(ids.data, ids.size));
    }
}

/// Runs `work`; reports its error or panic as one line.
unsafe fn guard(error: *mut OwnedString, work: impl FnOnce() -> Result<()>) -> Code {
    let (code, message) = match panics::catch(work) {
        Ok(Ok(())) => return Code::Ok,
        Ok(Err(message)) => (Code::BadInput, message),
        Err(panic) => (Code::Internal, format!("internal error: {panic}")),
    };
    *error = own_string(message.replace(['\n', '\r'], " "));
    code
}

/// A destructor that panics leaks what it has not freed; that beats ending the process.
unsafe fn free<T: ?Sized>(pointer: *mut T) {
    if !pointer.is_null() {
        let _ = panics::catch(|| drop(Box::from_raw(pointer)));
    }
}

fn own_string(text: String) -> OwnedString {
    let bytes = Box::leak(text.into_bytes().into_boxed_slice());
    OwnedString { data: bytes.as_mut_ptr().cast(), size: bytes.len() }
}

fn own_ids(ids: Vec<i32>) -> OwnedIds {
    let ids = Box::leak(ids.into_boxed_slice());
    OwnedIds { data: ids.as_mut_ptr(), size: ids.len() }
}

unsafe fn read_slice<'a, T>(data: *const T, size: usize) -> &'a [T] {
    if size == 0 {
        &[]
    } else {
        slice::from_raw_parts(data, size)
    }
}

unsafe fn read_text<'a>(text: Text, name: impl Fn() -> String) -> Result<&'a str> {
    std::str::from_utf8(read_slice(text.data.cast::<u8>(), text.size))
        .map_err(|error| format!("{} is not UTF-8 at byte {}", name(), error.valid_up_to()))
}

unsafe fn read_texts<'a>(data: *const Text, size: usize, name: &str) -> Result<Vec<&'a str>> {
    let texts = read_slice(data, size).iter().enumerate();
    texts.map(|(index, text)| read_text(*text, || format!("{name} {index}"))).collect()
}

unsafe fn read_vocab<'a>(tables: &VocabTables) -> Result<Vocab<'a>> {
    let types = read_slice(tables.types, tables.token_count).iter().enumerate();
    let kinds: Result<Vec<Kind>> = types
        .map(|(id, &value)| {
            Kind::from_value(value)
                .ok_or_else(|| format!("token {id} has the unknown type {value}"))
        })
        .collect();
    Ok(Vocab {
        model: if tables.model == 0 { Model::Bpe } else { Model::Spm },
        pre_tokenizer: read_text(tables.pre_tokenizer, || "the pre-tokenizer name".to_owned())?,
        tokens: read_texts(tables.tokens, tables.token_count, "token")?,
        kinds: kinds?,
        scores: read_slice(tables.scores, tables.score_count),
        merges: read_texts(tables.merges, tables.merge_count, "merge")?,
        unknown: (tables.unknown >= 0).then_some(tables.unknown),
        add_space_prefix: tables.add_space_prefix,
    })
}

unsafe fn read_chat<'a>(chat: &CChat) -> Result<Chat<'a>> {
    let messages = read_slice(chat.messages, chat.message_count).iter().enumerate();
    let messages: Result<Vec<Message>> = messages
        .map(|(index, message)| {
            Ok(Message {
                role: read_text(message.role, || format!("the role of message {index}"))?,
                content: read_text(message.content, || format!("the content of message {index}"))?,
            })
        })
        .collect();
    Ok(Chat { messages: messages?, add_generation_prompt: chat.add_generation_prompt })
}
