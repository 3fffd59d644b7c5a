//! For the tests of what steps ask of the host: each function does as its event's data says.

use dormouse::prelude::*;

mod sending;
mod triggered;

dormouse::module!(
    sending::send,
    sending::send_between,
    sending::give_up_sending,
    sending::echo,
    triggered::large,
    triggered::any_of,
);
