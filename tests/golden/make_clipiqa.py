"""Makes clipiqa-paper.json: CLIP-IQA of the paper's pair of texts, with piq 0.8.0 (Apache-2.0) and stand-in weights.

piq's CLIP first gives the scores of clipiqa.json for its five pairs, then those of "Good photo." and "Bad photo.".
Tokens come from open_clip, since piq downloads its own.

    pip install piq==0.8.0
    python -m tests.golden.make_clipiqa
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from open_clip import tokenize
from piq.clip_iqa import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from piq.feature_extractors.clip import CLIP

from tests.golden import golden
from tests.rows import content, filled

FOLDER = Path(__file__).parent


@torch.no_grad()
def main() -> None:
    """Checks piq on the five pairs and writes the scores of the one."""
    data = content("clipiqa")
    clip = CLIP(1024, 224, (3, 4, 6, 3), 64, None, 77, 49408, 512, 8, 12).eval()
    clip.load_state_dict(filled(data["backbone"]["keys"], data))
    paper = ["Good photo.", "Bad photo."]
    for case in data["cases"]:
        image = torch.from_numpy(golden.picture(*(case["picture"][key] for key in ("seed", "height", "width"))))[None]
        assert abs(score(clip, image, data["prompts"]) - case["score"]) < 1e-6
        case["score"] = score(clip, image, paper)
        for fact in ("grad", "rerun_rel"):
            case.pop(fact, None)
    data |= {
        "reference": "piq==0.8.0 feature_extractors.clip.CLIP, compared as piq.CLIPIQA does",
        "preprocess": data["preprocess"].replace("5 prompt pairs averaged", "one pair of prompts"),
        "variant": "paper",
        "prompts": paper,
    }
    (FOLDER / "clipiqa-paper.json").write_text(json.dumps(data, indent=1) + "\n")


def score(clip: CLIP, image: torch.Tensor, prompts: list[str]) -> float:
    """The mean over pairs of prompts of one image's score."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    features = clip.encode_image((image - mean) / std, pos_embedding=False)
    anchors = clip.encode_text(tokenize(prompts))
    features, anchors = (x / x.norm(dim=-1, keepdim=True) for x in (features, anchors))
    return float((clip.logit_scale.exp() * features @ anchors.T).view(-1, 2).softmax(1)[:, 0].mean())


if __name__ == "__main__":
    main()
