"""Names, files, templates, replies and servers hold what others put there: nothing of it steers a terminal."""

import re

# Control characters but for the line end and the tab, marks that reverse the direction of writing, other line ends,
# characters without width or form, half characters. Emoji and several scripts need joiners; Latin text does not.
STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u180e\u200b\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]|(?<=[!-~])[\u200c\u200d]|[\u200c\u200d](?=[!-~])"
)
_ENDLESS = re.compile(r"\S{401,}")


def visible(text: str) -> str:
    r"""The text with everything that could steer a terminal or deceive its reader written out: \x1b, \r, \u202e."""
    return STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


def shortened(text: str) -> str:
    """The text with the beginning of each run of more than 400 characters without a space: nobody reads 5,000 digits."""
    return _ENDLESS.sub(lambda found: f"{found[0][:100]}… ({len(found[0]):,} characters)", text)
