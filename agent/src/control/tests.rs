//! Hooks and strangers at the socket, with a pipeline that says yes to everything.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream as Caller,
};

use nix::sys::eventfd::EfdFlags;

use super::*;

struct Place {
    directory: tempfile::TempDir,
    wake: Arc<EventFd>,
}

impl Place {
    fn new() -> Self {
        let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC).unwrap();
        Self { directory: tempfile::tempdir().unwrap(), wake: Arc::new(wake) }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("run/control.sock")
    }

    fn listen(&self) -> (ControlSocket, mpsc::Receiver<Asked>) {
        ControlSocket::listen(&self.socket(), Arc::clone(&self.wake)).unwrap()
    }
}

/// Answers whatever is asked; what was asked.
fn answering(questions: mpsc::Receiver<Asked>) -> std::thread::JoinHandle<Vec<(u32, Moment, bool)>> {
    std::thread::spawn(move || {
        let mut seen = Vec::new();
        while let Ok(asked) = questions.recv() {
            seen.push((asked.pid, asked.moment, asked.token.is_some()));
            asked.answer(Answer::Job("id".to_owned()));
        }
        seen
    })
}

async fn say(path: PathBuf, bytes: Vec<u8>) -> String {
    let conversation = move || {
        let mut stream = Caller::connect(path).unwrap();
        // The agent may hang up before all is written.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    tokio::task::spawn_blocking(conversation).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_is_heard_with_its_process_number_and_answered() {
    let place = Place::new();
    let (socket, questions) = place.listen();
    let seen = answering(questions);
    let path = place.socket();
    let token = IdentityToken::parse("FAKE.not-a.token").unwrap();
    let told = tokio::task::spawn_blocking(move || client::tell(&path, Moment::Started, Some(token)));
    assert_eq!(told.await.unwrap().unwrap(), "id");
    drop(socket);
    assert_eq!(seen.join().unwrap(), [(std::process::id(), Moment::Started, true)]);
    assert!(place.wake.read().unwrap() > 0, "the sensor's thread is woken");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_question_is_refused_and_never_reaches_the_pipeline() {
    let place = Place::new();
    let (socket, questions) = place.listen();
    let seen = answering(questions);
    let too_long = vec![b' '; MAX_QUESTION + 1];
    let strange: [&[u8]; 6] = [
        b"",
        b"{",
        b"{\"hook\":\"exploded\"}",
        b"{\"hook\":\"started\",\"token\":\"a b\"}",
        b"{\"hook\":\"started\",\"more\":1}",
        &too_long,
    ];
    for bytes in strange {
        let answer = say(place.socket(), bytes.to_vec()).await;
        assert!(answer.contains("refused") || answer.is_empty(), "{answer}");
    }
    let answer = say(place.socket(), b"{\"hook\":\"completed\"}".to_vec()).await;
    assert_eq!(answer, "{\"job\":\"id\"}", "it goes on");
    drop(socket);
    assert_eq!(seen.join().unwrap(), [(std::process::id(), Moment::Completed, false)]);
}

#[tokio::test]
async fn the_socket_is_where_nobody_else_can_put_one_and_goes_with_the_agent() {
    let place = Place::new();
    let (socket, _questions) = place.listen();
    let again = ControlSocket::listen(&place.socket(), Arc::clone(&place.wake));
    assert!(matches!(again, Err(ControlError::InUse(_))), "{again:?}");
    drop(socket);
    assert!(!place.directory.path().join("run").exists());
    let open = place.directory.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let refused = ControlSocket::listen(&open.join("control.sock"), Arc::clone(&place.wake));
    assert!(matches!(refused, Err(ControlError::Directory(_))), "{refused:?}");
}

#[tokio::test]
async fn the_socket_of_a_killed_agent_is_replaced() {
    let place = Place::new();
    fs::create_dir(place.directory.path().join("run")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(place.socket()).unwrap());
    let (_socket, _questions) = place.listen();
}

#[test]
fn tokens_are_read_as_providers_hand_them_out_and_never_shown() {
    let plain = client::read_token(&b"FAKE.not-a.token\n"[..]).unwrap();
    let wrapped = client::read_token(&b"{\"count\": 1, \"value\": \"FAKE.not-a.token\"}"[..]).unwrap();
    assert_eq!(plain, wrapped);
    assert_eq!(format!("{plain:?}"), "IdentityToken(…)");
    for text in ["", "a.b", "a..b", "a.b.c.d", "a.b.c d", "{\"value\": 7}"] {
        assert!(client::read_token(text.as_bytes()).is_err(), "{text}");
    }
}
