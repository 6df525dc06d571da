//! Server-sent events (WHATWG HTML, 9.2.6), as much as is used here: `id` and `data`.

/// Bytes of one event; what is longer is passed over.
const LONGEST: usize = 1 << 20;

/// One event with data.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    pub id: Option<String>,
    pub data: String,
}

/// Makes events of pieces that are cut anywhere.
#[derive(Default)]
pub struct Events {
    line: Vec<u8>,
    id: Option<String>,
    data: String,
    after_cr: bool,
}

impl Events {
    /// The events that this piece completes.
    pub fn read(&mut self, piece: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for &byte in piece {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    events.extend(self.take(&String::from_utf8_lossy(&line)));
                }
                _ if self.line.len() < LONGEST => self.line.push(byte),
                _ => {}
            }
        }
        events
    }

    fn take(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let (id, data) = (self.id.take(), std::mem::take(&mut self.data));
            return (!data.is_empty()).then_some(Event { id, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" if self.data.len() + value.len() < LONGEST => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // It goes back in a header.
            "id" if value.bytes().all(|c| c.is_ascii_graphic()) => self.id = Some(value.to_owned()),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_however_they_are_cut() {
        let stream = ": alive\n\nevent: progress\nid: 7\nretry: 2000\ndata: {\"a\":\ndata: 1}\n\n\
                      data: x\r\n\r\nid: 9\n\n";
        let whole = [
            Event { id: Some("7".into()), data: "{\"a\":\n1}".into() },
            Event { id: None, data: "x".into() },
        ];
        for size in 1..stream.len() {
            let mut events = Events::default();
            let pieces = stream.as_bytes().chunks(size);
            let read: Vec<Event> = pieces.flat_map(|piece| events.read(piece)).collect();
            assert_eq!(read, whole, "in pieces of {size}");
        }
    }
}
