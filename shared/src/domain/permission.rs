//! Permissions: names that a key holds, and questions about them.
//!
//! A name is parts with dots between them (`documents.read`). In what is held, a part that is `*` stands for
//! any one part, and as the last one for all that follow. A question joins names with `AND`, `OR` and
//! parentheses; `AND` binds closer. A `*` in a question is held only by those who hold that much.
//!
//! Both are bounded: a name in characters, a question in bytes and depth, so reading one takes little, whatever
//! it says.

/// Characters of a name.
pub const NAME: usize = 255;
/// Bytes of a question.
pub const QUESTION: usize = 1_000;
/// Parentheses inside each other.
const DEPTH: usize = 32;

/// Is this a name that can be held or asked for?
pub fn is_name(text: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.bytes().all(is_of_name);
    text.len() <= NAME && text.split('.').all(part)
}

fn is_of_name(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"_-:*/".contains(&c)
}

/// Does what is held cover what is asked for?
pub fn covers(held: &str, asked: &str) -> bool {
    let (mut held, mut asked) = (held.split('.').peekable(), asked.split('.'));
    loop {
        match (held.next(), asked.next()) {
            (None, None) => return true,
            (Some("*"), Some(_)) if held.peek().is_none() => return true,
            (Some("*"), Some(_)) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// A question about permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Is this held?
    Name(String),
    /// All of these.
    And(Vec<Question>),
    /// One of these.
    Or(Vec<Question>),
}

/// A text that is no question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadQuestion {
    /// Longer than is read.
    #[error("must be at most {QUESTION} bytes")]
    TooLong,
    /// Deeper than is read.
    #[error("must not have more than {DEPTH} parentheses inside each other")]
    TooDeep,
    /// Something else was wanted.
    #[error("must have {want} at position {at}")]
    Wanted {
        /// What.
        want: &'static str,
        /// Bytes from the start.
        at: usize,
    },
}

impl Question {
    /// Reads a question.
    pub fn parse(text: &str) -> Result<Self, BadQuestion> {
        if text.len() > QUESTION {
            return Err(BadQuestion::TooLong);
        }
        let mut reader = Reader { text, at: 0 };
        let question = reader.any(0)?;
        match reader.peek() {
            (_, Token::End) => Ok(question),
            (at, _) => Err(BadQuestion::Wanted { want: "AND, OR or the end", at }),
        }
    }

    /// Is it so for who holds these?
    pub fn holds(&self, held: &[String]) -> bool {
        match self {
            Question::Name(asked) => held.iter().any(|held| covers(held, asked)),
            Question::And(all) => all.iter().all(|one| one.holds(held)),
            Question::Or(all) => all.iter().any(|one| one.holds(held)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Open,
    Close,
    And,
    Or,
    Name(&'a str),
    Wrong,
    End,
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// Where the next token begins, and what it is.
    fn peek(&self) -> (usize, Token<'a>) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let begins = self.at + (rest.len() - rest.trim_start().len());
        let rest = rest.trim_start();
        let word = rest.bytes().take_while(|c| is_of_name(*c) || *c == b'.').count();
        let token = match rest.bytes().next() {
            None => Token::End,
            Some(b'(') => Token::Open,
            Some(b')') => Token::Close,
            Some(_) if word == 0 => Token::Wrong,
            Some(_) => match rest.get(..word).unwrap_or_default() {
                word if word.eq_ignore_ascii_case("and") => Token::And,
                word if word.eq_ignore_ascii_case("or") => Token::Or,
                word => Token::Name(word),
            },
        };
        (begins, token)
    }

    fn skip(&mut self) {
        let (begins, token) = self.peek();
        self.at = begins
            + match token {
                Token::Open | Token::Close => 1,
                Token::And => 3,
                Token::Or => 2,
                Token::Name(name) => name.len(),
                Token::Wrong | Token::End => 0,
            };
    }

    fn any(&mut self, depth: usize) -> Result<Question, BadQuestion> {
        let mut parts = vec![self.all(depth)?];
        while self.peek().1 == Token::Or {
            self.skip();
            parts.push(self.all(depth)?);
        }
        Ok(join(parts, Question::Or))
    }

    fn all(&mut self, depth: usize) -> Result<Question, BadQuestion> {
        let mut parts = vec![self.one(depth)?];
        while self.peek().1 == Token::And {
            self.skip();
            parts.push(self.one(depth)?);
        }
        Ok(join(parts, Question::And))
    }

    fn one(&mut self, depth: usize) -> Result<Question, BadQuestion> {
        match self.peek() {
            (_, Token::Name(name)) if is_name(name) => {
                self.skip();
                Ok(Question::Name(name.to_owned()))
            }
            (_, Token::Open) if depth == DEPTH => Err(BadQuestion::TooDeep),
            (_, Token::Open) => {
                self.skip();
                let inside = self.any(depth + 1)?;
                match self.peek() {
                    (_, Token::Close) => {
                        self.skip();
                        Ok(inside)
                    }
                    (at, _) => Err(BadQuestion::Wanted { want: "AND, OR or )", at }),
                }
            }
            (at, _) => Err(BadQuestion::Wanted { want: "the name of a permission or (", at }),
        }
    }
}

fn join(mut parts: Vec<Question>, how: impl Fn(Vec<Question>) -> Question) -> Question {
    match (parts.len(), parts.pop()) {
        (1, Some(one)) => one,
        (_, Some(last)) => {
            parts.push(last);
            how(parts)
        }
        (_, None) => how(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn held(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn stars_stand_for_parts() {
        for (held, asked, want) in [
            ("documents.read", "documents.read", true),
            ("documents.read", "documents.write", false),
            ("documents.read", "documents", false),
            ("documents", "documents.read", false),
            ("documents.*", "documents.read", true),
            ("documents.*", "documents.a.b", true),
            ("documents.*", "documents.*", true),
            ("documents.*", "documents", false),
            ("documents.*", "documentsx.read", false),
            ("documents.read", "documents.*", false),
            ("api.*.create_key", "api.api_1.create_key", true),
            ("api.*.create_key", "api.*.create_key", true),
            ("api.*.create_key", "api.api_1.verify_key", false),
            ("api.*.create_key", "api.a.b.create_key", false),
            ("api.api_1.create_key", "api.*.create_key", false),
            ("*", "anything.at.all", true),
            ("*.read", "documents.read", true),
        ] {
            assert_eq!(covers(held, asked), want, "{held} covers {asked}");
        }
    }

    #[test]
    fn questions_are_asked() {
        let key = held(&["documents.read", "users.*"]);
        for (question, want) in [
            ("documents.read", true),
            (" documents.read AND users.view ", true),
            ("documents.write OR users.view", true),
            ("documents.write AND users.view", false),
            ("(documents.read OR documents.write) AND users.view", true),
            // AND binds closer.
            ("documents.read OR documents.write AND nothing", true),
            ("(documents.read OR documents.write) AND nothing", false),
            ("((documents.read))", true),
            ("documents.read and(users.view)", true),
            ("users.*", true),
            ("documents.*", false),
            // Words that only begin like those that join.
            ("ORder.read OR documents.read", true),
            ("ANDy.read", false),
        ] {
            assert_eq!(Question::parse(question).unwrap().holds(&key), want, "{question}");
        }
    }

    #[test]
    fn what_is_no_question_says_where() {
        let wanted = |text: &str| match Question::parse(text) {
            Err(BadQuestion::Wanted { at, .. }) => Some(at),
            _ => None,
        };
        for (text, at) in [
            ("", 0),
            ("   ", 3),
            ("a AND", 5),
            ("AND a", 0),
            ("a b", 2),
            ("(a", 2),
            ("a)", 1),
            ("()", 1),
            ("a OR OR b", 5),
            ("a..b", 0),
            ("a & b", 2),
            ("ä", 0),
        ] {
            assert_eq!(wanted(text), Some(at), "{text:?}");
        }
        assert_eq!(Question::parse(&"a".repeat(1_001)), Err(BadQuestion::TooLong));
        let deep = |n: usize| format!("{}a{}", "(".repeat(n), ")".repeat(n));
        assert!(Question::parse(&deep(32)).is_ok());
        assert_eq!(Question::parse(&deep(33)), Err(BadQuestion::TooDeep));
    }

    fn question() -> impl Strategy<Value = Question> {
        let name = "[a-c]\\.[a-c]".prop_map(Question::Name);
        name.prop_recursive(4, 24, 3, |inner| {
            let parts = prop::collection::vec(inner, 2..4);
            prop_oneof![parts.clone().prop_map(Question::And), parts.prop_map(Question::Or)]
        })
    }

    /// As a person writes it, with every pair of parentheses.
    fn write(question: &Question) -> String {
        let joined = |all: &[Question], word: &str| {
            let parts: Vec<String> = all.iter().map(write).collect();
            format!("({})", parts.join(word))
        };
        match question {
            Question::Name(name) => name.clone(),
            Question::And(all) => joined(all, " AND "),
            Question::Or(all) => joined(all, "  or "),
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(question in question()) {
            let text = write(&question);
            prop_assume!(text.len() <= QUESTION);
            prop_assert_eq!(Question::parse(&text), Ok(question));
        }

        /// Whoever holds more is never refused for it.
        #[test]
        fn more_is_never_less(
            question in question(),
            names in prop::collection::btree_set("[a-c]\\.[a-c*]|\\*\\.[a-c]", 0..6), more in "[a-c]\\.[a-c]",
        ) {
            let mut held: Vec<String> = names.into_iter().collect();
            let before = question.holds(&held);
            held.push(more);
            prop_assert!(!before || question.holds(&held));
            prop_assert!(question.holds(&[String::from("*")]));
        }

        /// No text makes it panic, and an error points into the text.
        #[test]
        fn any_text_is_read_or_refused(text in "[a-c.()* ANDOR&ä]{0,60}") {
            if let Err(BadQuestion::Wanted { at, .. }) = Question::parse(&text) {
                prop_assert!(at <= text.len() && text.is_char_boundary(at));
            }
        }

        #[test]
        fn covering_is_passed_on(a in "[ab*](\\.[ab*]){0,2}", b in "[ab*](\\.[ab*]){0,2}", c in "[ab](\\.[ab]){0,2}") {
            prop_assert!(covers(&a, &a));
            prop_assert!(!(covers(&a, &b) && covers(&b, &c)) || covers(&a, &c), "{} {} {}", a, b, c);
        }
    }
}
