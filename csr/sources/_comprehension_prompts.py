"""What STIC asks for careful and misled descriptions (arXiv:2405.19716), in our own words."""

from __future__ import annotations

GOOD_PROMPT = (
    "Look at the image carefully and describe it step by step. First name the main subjects and "
    "what they do. Then describe the setting, the light and the mood. Then the colours and how "
    "the picture is composed. Then the small details and any writing or symbols. Say only what "
    "can be seen, and end with what the image as a whole shows."
)
BAD_PROMPTS = (
    "Describe the image, and add a few things that could well be there but are not.",
    "Describe what is just outside the edges of the image as if it were in it.",
    "Imagine what happened before this image was taken, and describe that as what you see.",
    "Describe the image with other objects in place of those that are there.",
    "Describe the image as if there were more people and animals in it than there are.",
    "Describe the objects that are hidden in the image, with their colours.",
    "Describe the image, and give its objects unusual colours and sizes.",
    "Tell a story of things that cannot be seen in the image, as a description of it.",
)
