"""FastAPI in one uvicorn process, PyTorch in eager mode, Pillow, torchvision: how most projects of this kind serve."""

from __future__ import annotations

import torch
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
from torchvision import transforms

from tests.load.peers import common
from training.evaluation.calibration import Calibration
from training.evaluation.outputs import CALIBRATION_FILE
from training.evaluation.trained import Trained

app = FastAPI()
trained = Trained.load()
temperature = Calibration.load(CALIBRATION_FILE).temperature
transform = transforms.Compose(
    [
        transforms.Resize(trained.preprocessing.resize, transforms.InterpolationMode.BILINEAR),
        transforms.CenterCrop(trained.preprocessing.size),
        transforms.PILToTensor(),  # 0 to 255: the network itself scales and normalises
    ]
)


@app.post("/predict")
def predict(image: UploadFile) -> dict[str, list[float]]:
    tensor = transform(Image.open(image.file).convert("RGB"))
    with torch.inference_mode():
        logits = trained.model(tensor[None])
    return common.answer(torch.softmax(logits[0] / temperature, 0))


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=common.PORT, access_log=False)
